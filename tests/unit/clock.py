"""A wall clock that is set by hand."""


class Clock:
    now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now
