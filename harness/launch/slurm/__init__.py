"""Runs as jobs of a SLURM cluster: submitted as arrays, followed from the runs' own files.

scheduler.py   the scheduler's answers, each call with a time-out: a hint and never the truth
ledger.py      what was handed to the scheduler, written before it was
freeze.py      the code that was submitted is the code that runs
script.py      the sbatch script and its submission, which are submitit's
submit.py      steps to arrays, chunked to what the cluster takes
task.py        what runs inside a job
policy.py      what is done after each kind of end
"""
