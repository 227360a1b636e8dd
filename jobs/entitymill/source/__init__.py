"""Read the source: which rows are documents, which are rejected, and which documents are new, changed or removed.

This is step 1, and the only package that reads the source. `reader` opens and reads it (`unreadable_source` explains read
errors), `carried_columns` checks its columns, `row_checks` validates its rows, and `column_proposal` suggests settings for a
new table.

`changes` finds the work of a run according to a `policy`: `outcomes` compares rows with the output, `change_feed` and
`appended_files` read what changed since the last run, and `feed_comparison` compares only that, using `id_lookup` for ids
that the events leave open.
"""
