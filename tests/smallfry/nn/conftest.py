import importlib.util

# All tests here need torch.
collect_ignore_glob = [] if importlib.util.find_spec("torch") else ["test_*.py"]
