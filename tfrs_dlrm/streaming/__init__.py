"""Continuous training on raw rows in Kafka.

In the order of the data:

address                 kafka://HOST:PORT/TOPIC?...: where the rows are, and in which form
client                  the broker: which partitions a topic has, what they hold, and which errors pass
reader                  rows by partition and offset, and retries while a broker is away
confluent               reads a topic by confluent-kafka; tensorflow_io by tensorflow-io; readers chooses
windows                 groups of rows, written down before they are touched, and the windows that the weights have seen
waiting                 waits for the rows of the next window
ahead                   reads the next window while the present one is trained on
messages                messages to encoded rows, by the encoder that `prepare` and the SavedModel run
quarantine              sets malformed messages aside
admission               rows for values that first appear along the stream
learner                 evaluates a window, then trains on it
bundles                 a SavedModel every so many windows
progress                lag and rows/s, on the terminal and in TensorBoard
loop                    all of it: `train_on_stream`
"""
