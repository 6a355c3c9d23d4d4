"""Rows for values that first appear along a stream (`stream.new_values=admit`).

candidates          values without a row, and when each was seen
living_vocabulary   the values of a table: which are admitted, and which give up their row
window_texts        the texts of a window's rows, as vocabularies have them
first_counts        the counts with which the prepared values begin
fresh_rows          begins rows of a table anew, with their slots
vocabulary_state    the vocabularies as variables of the checkpoint
checkpoint_encoder  the vocabularies as files of the checkpoint, for evaluation, export and reports
new_values          all of it, window by window: `NewValues`

A window is evaluated with the vocabularies as they were before it. Then its rows are counted, values are admitted, rows
that changed hands begin anew, and the rows are encoded again, so that training knows the new values. What happens is a
function of the windows in `windows.jsonl` and of the rows in them alone.
"""
