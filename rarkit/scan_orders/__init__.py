"""Scan orders: in which order the cells of a grid are visited. One file an order."""

from rarkit.scan_orders.alternate import Alternate
from rarkit.scan_orders.base import ScanOrder
from rarkit.scan_orders.raster import Raster
from rarkit.scan_orders.spiral import Spiral
from rarkit.scan_orders.subsample import Subsample
from rarkit.scan_orders.z_curve import ZCurve
from rarkit.scan_orders.zigzag import Zigzag

__all__ = ["ScanOrder", "Raster", "Spiral", "Zigzag", "Alternate", "ZCurve", "Subsample"]
