"""Pages as values, and their writers: Markdown, HTML, LaTeX and Typst.

`blocks` and `table` say what a page holds, whatever its format; each writer gives one format of any
document.  Nothing here knows of runs, sweeps or metrics.
"""
