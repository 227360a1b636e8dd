"""Extension: the page, drift, metrics and lineage of a run. Libraries of its extras are imported only where they are used.

`observer` follows a run and calls the other modules. `page_figures` defines the content of a page; `page_queries` reads it
from the output's tables, and `page_sentences` its text. `drift` compares a run with earlier ones, `plots` draws,
`page` renders the HTML, `after_run` calls these at the end of a run. `metrics` is for Prometheus, `lineage` for OpenLineage.
"""
