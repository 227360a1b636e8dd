"""5  what people and programs see of a run: its page, drift, metrics. Libraries of its extras load only where they are used.

`figures` reads the output's tables, `drift` holds a run against the ones before, `plots` draws, `page` writes the HTML,
`ending` is what a run does last, `command` is `entitymill report`; `metrics` is for Prometheus.
"""
