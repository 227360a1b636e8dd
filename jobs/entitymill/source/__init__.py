"""1  text table -> documents, and rejects; which are new, changed, gone. The only package that reads the source.

`reader` opens and reads it (`parquet_footers` where Spark cannot, `unreadable` says why not), `carried` checks its columns,
`row_checks` judges its rows, `changes` compares them with what the output holds, `change_feed` is what Delta says of them,
`proposal` looks at a table that nobody has described yet.
"""
