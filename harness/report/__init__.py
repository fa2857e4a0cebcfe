"""From records to pages: statistics, tables, figures and the text around them.

Reads run directories and writes one report folder; never starts, changes or scores a run.
Importing `folder`, which does so, imports pandas, seaborn and scipy.
"""
