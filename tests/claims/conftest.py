"""How many duels of two jobs are fought."""


def pytest_addoption(parser):
    parser.addoption("--duels", type=int, default=2, help="how many duels of two jobs on one run are fought")
