"""Events, logs, progress, timers and pictures of a run. These modules do not call the runtime."""
