"""Starts `tfrs-dlrm profile` in a checkout."""

if __name__ == "__main__":
    from tfrs_dlrm.programs import launch

    launch.run("profile")
else:
    # Python finds this file, next to the script that runs, where a library such as cProfile imports Python's `profile`.
    import os
    import sys
    import types
    from importlib.machinery import SourceFileLoader

    sys.modules[__name__] = types.ModuleType(__name__)
    loader = SourceFileLoader(__name__, os.path.join(os.path.dirname(os.__file__), "profile.py"))
    loader.exec_module(sys.modules[__name__])
