"""Extension: the report page, drift, metrics and lineage of a run.

`reports_of_a_run` follows a run and calls the other modules. `drift` compares the run with earlier runs. `page_content`
defines the content of a report page. `page_queries` reads the numbers, and `page_excerpts` reads the text. Both use
`table_reader`, which reads the output's tables with or without Spark. `plots` draws the plots, and `page` renders the HTML.
`prometheus_metrics` is for Prometheus, `lineage` for OpenLineage. `report_command` is the `entitymill report` command.
Optional libraries, such as matplotlib, are imported only where they are used.
"""
