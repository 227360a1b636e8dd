"""Read the source (the table of texts), and find which documents are new, changed or removed, and which rows are rejected.

No other package reads the source. `reader` opens the source and reads its rows; `unreadable_source` explains read errors.
`source_columns` checks the columns, `row_checks` validates rows, and `column_proposal` proposes settings for a new table.

`changes` finds the documents that a run must process, and `rows_against_output` compares rows with the output. `change_feed`
reads which rows were inserted, updated or deleted in the source since the last run. `feed_against_output` compares only
these changes with the output. If the changes do not show in which rows of the source an id still occurs,
`feed_against_output` looks up the id in the source.
"""
