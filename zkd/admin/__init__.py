"""What the admin process and the front-ends' audit are made of, apart from the bus.

`observers.py`: commit observers behind their durable cursors. `exporters.py`: metrics exporters.
`audit.py`: the queue before audit sinks. `commits.py`: a log entry as observers see it.
"""
