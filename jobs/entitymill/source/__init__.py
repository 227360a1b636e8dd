"""1  text table -> documents, and rejects; which are new, changed, gone. The only package that reads the source.

`reader` opens and reads it (`unreadable_source` says what Spark cannot read of it, and why), `carried_columns`
checks its columns, `row_checks` judges its rows, `changes` compares them with what the output holds, `change_feed` is what
Delta says of them, `column_proposal` looks at a table that nobody has described yet.
"""
