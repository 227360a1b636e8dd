"""5  what people and programs see of a run. Libraries of its extras load only where they are used.

`page_figures` are what a page shows; `page_queries` takes them from the output's tables, with `page_sentences` (what of it
is text). `drift` holds a run against the ones before, `plots` draws, `page` makes the HTML. `after_run` is what a run does
last, `progress` and `terminal` what a person sees of it. `metrics` is for Prometheus, `lineage` for OpenLineage.
"""
