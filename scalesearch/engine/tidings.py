"""Events that wait until the coordinator asks for them."""

from __future__ import annotations

from scalesearch.engine.work import Event, Noticed


class Tidings:
    """What an engine has to tell, in order; of what every worker notices, such as one full disk, once."""

    def __init__(self, *events: Event) -> None:
        self._events: list[Event] = []
        self._told: set[str] = set()
        self.add(*events)

    def add(self, *events: Event) -> None:
        """Have events told at the next time."""
        for event in events:
            if isinstance(event, Noticed):
                if event.text in self._told:
                    continue
                self._told.add(event.text)
            self._events.append(event)

    def taken(self) -> list[Event]:
        """What has not been told yet."""
        events, self._events = self._events, []
        return events
