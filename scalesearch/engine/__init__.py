"""Where trials are trained: work goes in, events come out. Never touches the study."""
