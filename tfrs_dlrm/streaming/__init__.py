"""Continuous training on raw rows in Kafka.

In the order of the data:

address            kafka://HOST:PORT/TOPIC?...: where the rows are, and in which form
client             the broker: which partitions there are, what they hold, and which errors pass
reader             rows by partition and offset; confluent, tensorflow_io: the two that read them
retries            a broker that goes away and comes back
windows            which rows belong together, written down before they are touched
messages           messages to encoded rows, by the encoder that `prepare` and the SavedModel run
quarantine         what became of messages that are no rows
state              which rows the weights have seen: in the checkpoint, beside the weights
learner            a window: evaluated, then trained on
bundles            a SavedModel every so many windows
progress           lag and rows/s, on the terminal and in TensorBoard
loop               all of it: `train_on_stream`
"""
