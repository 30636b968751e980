"""`shortcut report RUN`."""


def run(words: list[str]) -> int:
    return 0
