"""What the executor `slurm` is made of: arrays of jobs, followed from the runs' own files.

scheduler.py    the scheduler's answers, each call with a time-out: a hint and never the truth
limits.py       how much the cluster takes
submissions.py  what was handed to the scheduler, written before it was
freeze.py       the code that was submitted is the code that runs; frozen_check.py looks whether
launching.py    how tasks begin, or die before any Python of ours
script.py       the sbatch script of a job, and its submission
places.py       where in the queue runs are, how they left it, and out of it
orders.py       from an order to the jobs of its submission
submit.py       what is missing and not in the queue goes into it; a report follows
recall.py       runs called off, or submitted once more
rehearse.py     every distinct run for a few steps, before the whole is let go
supervisor.py   what runs inside a job, and afterwards, of the runs of an array_task.py
report_job.py   the last job: what was lost goes back to the queue, then the report
policy.py       what is done after each kind of end
"""
