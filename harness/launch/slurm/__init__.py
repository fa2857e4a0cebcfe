"""What the executor `slurm` is made of: arrays of jobs, followed from the runs' own files.

scheduler.py    the scheduler's answers, each call with a time-out: a hint and never the truth
submissions.py  what was handed to the scheduler, written before it was
freeze.py       the code that was submitted is the code that runs
script.py       the sbatch script and its submission, which are submitit's
submit.py       steps to arrays, chunked to what the cluster takes
rehearse.py     every distinct run for a few steps, before the whole is let go
supervisor.py   what runs inside a job, and afterwards, of the runs of an array_task.py
report_job.py   the last job: what was lost goes back to the queue, then the report
policy.py       what is done after each kind of end
"""
