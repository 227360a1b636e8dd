"""Extension: what a run reports beside its tables. Libraries of its extras load only where they are used.

`observer` follows a run and feeds the rest. `page_figures` are what a page shows; `page_queries` reads them from the
output's tables, with `page_sentences` (what of it is text). `drift` compares a run with earlier ones, `plots` draws, `page`
makes the HTML, `after_run` does all this at a run's end. `metrics` is for Prometheus, `lineage` for OpenLineage.
"""
