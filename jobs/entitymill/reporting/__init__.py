"""5  what people and programs see of a run. Libraries of its extras load only where they are used.

`figures` are what a page shows; `reading` takes them from the output's tables, with `unit_speeds` (from the record of
commits) and `shown` (what is text). `drift` holds a run against the ones before, `plots` draws, `page` makes the HTML.
`ending` is what a run does last, `progress` and `terminal` what a person sees of it. `metrics` is for Prometheus, with
`totals` over all runs; `lineage` for OpenLineage.
"""
