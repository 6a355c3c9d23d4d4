"""Object stores: raw logs, prepared data, runs and bundles at `s3://BUCKET/PREFIX` and `gs://BUCKET/PREFIX`.

Stores have no rename and no directories. What is written here becomes visible by one object, `published.json`, which
is written last and lists all others with sizes and checksums; readers go by it and by nothing else.
"""

from tfrs_dlrm.stores.address import Address, is_address, join, split_object
from tfrs_dlrm.stores.errors import StoreError
from tfrs_dlrm.stores.listing import PUBLISHED_FILE, Entry, Listing
from tfrs_dlrm.stores.mirror import Mirror, forget_copy, local_copy
from tfrs_dlrm.stores.publish import check_free, publish, unpublish, visible_files
from tfrs_dlrm.stores.reading import RemoteFile
from tfrs_dlrm.stores.store import Object, Store

__all__ = [
    "PUBLISHED_FILE",
    "Address",
    "Entry",
    "Listing",
    "Mirror",
    "Object",
    "RemoteFile",
    "Store",
    "StoreError",
    "check_free",
    "forget_copy",
    "is_address",
    "join",
    "local_copy",
    "publish",
    "split_object",
    "unpublish",
    "visible_files",
]
