"""1  text table -> documents, and rejects; which are new, changed, gone. The only package that reads the source.

`reader` opens and reads it (`unreadable_source` says what Spark cannot read of it, and why), `carried_columns`
checks its columns, `row_checks` judges its rows, and `column_proposal` looks at a table that nobody has described yet.

`changes` says what a run has to do, by a `policy`: `outcomes` compares rows with what the output holds, `change_feed` and
`appended_files` read what changed since the last run, and `feed_comparison` compares only that, with `id_lookup` for ids of
which it does not tell all.
"""
