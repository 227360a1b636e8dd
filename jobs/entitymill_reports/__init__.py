"""Report on a run: write its report page, metrics and lineage, and compare it with earlier runs. An optional extension.

`reports_of_a_run` calls the other modules while a run proceeds. `drift` compares the run with earlier runs. `page_content`
defines the content of a report page. `page_queries` reads the page's numbers, and `page_excerpts` its samples of text. Both
use `table_reader`, which reads the output's tables with or without Spark. `plots` draws plots, and `page` renders the HTML.
`prometheus_metrics` is for Prometheus, `lineage` for OpenLineage. `report_command` is the `entitymill report` command.
Optional libraries, such as matplotlib, are imported only where they are used.
"""
