"""Collects what is known of a log, and what is suspicious in it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence

from tfrs_dlrm.data.preparing.profiling.column_profile import Profile
from tfrs_dlrm.messages.arguments import checked
from tfrs_dlrm.schema import SCHEMA_FILE, Schema
from tfrs_dlrm.stores import local_copy
from tfrs_dlrm.tools.profile.finding import Finding
from tfrs_dlrm.tools.profile.new_values import new_shares
from tfrs_dlrm.tools.profile.request_profile import request_profile
from tfrs_dlrm.tools.profile.single_log import suspicious
from tfrs_dlrm.tools.profile.two_logs import differences, skew


@dataclasses.dataclass(frozen=True)
class LogReport:
    """What is known of a log.

    Attributes:
      data: the prepared directory, as it was given.
      against: the earlier one; empty without one.
      requests: the request logs; empty without any.
      profile: of the log.
      before: of the earlier log; None without one.
      served: of the request logs; None without any.
      findings: what is suspicious: in the log itself, then against the earlier log, then against requests.
    """

    data: str
    against: str
    requests: tuple[str, ...]
    profile: Profile
    before: Profile | None
    served: Profile | None
    findings: tuple[Finding, ...]


@checked
def examine(data: str, against: str = "", requests: Sequence[str] = ()) -> LogReport:
    """Examines a prepared log.

    Args:
      data: a prepared directory, on a disk or in an object store.
      against: an earlier one, which it is compared with; it need not be its base.
      requests: files, directories and glob patterns of request logs, which it is compared with.

    Raises:
      FileNotFoundError: there is no such directory, or an earlier version prepared it, without a profile.
      ValueError: a profile is damaged; or a request log is broken or has other features.
    """
    directory = local_copy(data)
    profile, schema = Profile.load(directory), Schema.load(os.path.join(directory, SCHEMA_FILE))
    found = [*suspicious(profile, schema)]
    before = served = None
    if against:
        earlier = local_copy(against)
        before = Profile.load(earlier)
        found += differences(profile, before, new_shares(directory, profile, schema, earlier))
    if requests:
        served = request_profile(requests, directory)
        found += skew(profile, served)
    return LogReport(data, against, tuple(requests), profile, before, served, tuple(found))
