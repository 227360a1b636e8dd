"""Report on a run: write its report page, metrics and lineage, and compare it with earlier runs.

The job needs this extension only if its settings ask for one of these. `reports_of_a_run` calls the other modules when a run
begins and ends. `drift` compares the run with earlier runs. `page_data` defines the content of a report page.
`page_queries` reads the page's numbers, and `page_excerpts` its samples of text. Both use `table_reader`, which reads tables
with or without Spark. `plots` draws plots, and `page` renders the HTML. `prometheus_metrics` writes metrics, `lineage` sends
OpenLineage events, and `report_command` runs `entitymill report`. Optional libraries are imported only where they are used.
"""
