"""Arrays in a CUDA device's memory for the tests of _core, which takes anything that speaks DLPack: memory of the
runtime that _core itself calls, be it NVIDIA's or an emulator's; and NumPy's product for the head path there."""

import ctypes
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int32, c_int64, c_size_t, c_uint64, c_void_p

import numpy as np

import prospect
from prospect import _core

BF16 = np.dtype([("bf16", np.uint16)])  # which NumPy does not have
_CODES = {np.dtype(np.float32): 2, np.dtype(np.float64): 2, np.dtype(np.float16): 2, BF16: 4, np.dtype(np.int32): 0,
          np.dtype(np.int64): 0, np.dtype(np.uint8): 1, np.dtype(np.bool_): 6}
_HOST, _CUDA = 1, 2
_TO_DEVICE, _TO_HOST = 1, 2


def stored(values, dtype):
    """Real numbers in a dtype, rounded to nearest."""
    if dtype != BF16:
        return np.asarray(values, dtype)
    bits = np.asarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16).view(BF16)


def wide(array):
    """The numbers themselves."""
    if array.dtype != BF16:
        return array.astype(np.float64)
    return (np.ascontiguousarray(array).view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def _runtime():
    """(what answers _core's calls, why there is none)."""
    if not prospect.has_cuda():
        return None, "the package was built without device code"
    runtime = ctypes.CDLL(None)  # what was preloaded comes before what _core was linked with
    if not hasattr(runtime, "cudaGetDeviceCount"):
        runtime = ctypes.CDLL(_core.__file__)
    count = ctypes.c_int()
    if runtime.cudaGetDeviceCount(ctypes.byref(count)) != 0 or count.value == 0:
        return None, "there is no CUDA device"
    return runtime, None


cuda, missing = _runtime()


def _must(status):
    assert status == 0, f"CUDA says {status}"


def emulated():
    """Whether the device is none of NVIDIA's."""
    properties = ctypes.create_string_buffer(1 << 14)  # which begin with the name
    _must(cuda.cudaGetDeviceProperties(properties, 0))
    return b"NVIDIA" not in properties.value


class _Type(Structure):
    _fields_ = [("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16)]


class _Tensor(Structure):
    _fields_ = [("data", c_void_p), ("device_type", c_int32), ("device_id", c_int32), ("ndim", c_int32),
                ("dtype", _Type), ("shape", POINTER(c_int64)), ("strides", POINTER(c_int64)), ("offset", c_uint64)]


class _Managed(Structure):
    _fields_ = [("tensor", _Tensor), ("context", c_void_p), ("deleter", c_void_p)]


_new_capsule = ctypes.pythonapi.PyCapsule_New
_new_capsule.restype, _new_capsule.argtypes = ctypes.py_object, [c_void_p, c_char_p, c_void_p]
_DLTENSOR, _GEMM = b"dltensor", b"prospect_gemm"  # the names stay where they are as long as the capsules


class Array:
    """A copy of a NumPy array on the host or the device. The rows of a matrix lie apart, and what is between them
    must stay as it was."""

    def __init__(self, values, device):
        self.device, (self.rows, self.columns) = device, values.shape if values.ndim == 2 else (1, values.size)
        self.shape, self.dtype = values.shape, values.dtype
        self.block = np.full((self.rows, self.columns + (3 if values.ndim == 2 else 0)), 0xFF, np.uint8).repeat(
            self.dtype.itemsize, axis=1).view(self.dtype)
        self.block[:, :self.columns] = values.reshape(self.rows, self.columns)
        self.address = self.block.ctypes.data
        if device:
            memory = c_void_p()
            _must(cuda.cudaMalloc(ctypes.byref(memory), c_size_t(max(self.block.nbytes, 1))))
            self.address = memory.value
            self._copy(_TO_DEVICE)

    def __del__(self):
        if self.device:
            cuda.cudaFree(c_void_p(self.address))

    def _copy(self, way):
        there, here = c_void_p(self.address), c_void_p(self.block.ctypes.data)
        to, of = (there, here) if way == _TO_DEVICE else (here, there)
        _must(cuda.cudaMemcpy(to, of, c_size_t(self.block.nbytes), way))

    def read(self):
        """What is there now, once the device is done."""
        if self.device:
            self._copy(_TO_HOST)
        between = np.ascontiguousarray(self.block[:, self.columns:]).view(np.uint8)
        assert (between == 0xFF).all(), "written between the rows"
        return self.block[:, :self.columns].reshape(self.shape).copy()

    def __dlpack_device__(self):
        return (_CUDA if self.device else _HOST, 0)

    def __dlpack__(self, **_):
        strides = (self.block.shape[1], 1)[2 - len(self.shape):]
        sizes = [(c_int64 * 2)(*values) for values in (self.shape, strides)]
        dtype = _Type(_CODES[self.dtype], 8 * self.dtype.itemsize, 1)
        tensor = _Tensor(self.address, self.__dlpack_device__()[0], 0, len(self.shape), dtype, *sizes, 0)
        self.lent = (_Managed(tensor), sizes)  # for as long as the array, which is longer than a call
        return _new_capsule(ctypes.addressof(self.lent[0]), _DLTENSOR, None)


class _Matrix(Structure):
    _fields_ = [("data", c_void_p), ("rows", c_int64), ("columns", c_int64), ("pitch", c_int64), ("dtype", c_int32),
                ("reserved", c_int32)]

    def _copied(self, array, way):
        size = array.dtype.itemsize
        there, here = (self.data, self.pitch * size), (array.ctypes.data, self.columns * size)
        (to, to_pitch), (of, of_pitch) = (there, here) if way == _TO_DEVICE else (here, there)
        if array.size:
            _must(cuda.cudaMemcpy2D(c_void_p(to), c_size_t(to_pitch), c_void_p(of), c_size_t(of_pitch),
                                    c_size_t(self.columns * size), c_size_t(self.rows), way))

    def read(self):
        dtype = {0: np.dtype(np.float32), 2: np.dtype(np.float16), 3: BF16}[self.dtype]
        array = np.empty((self.rows, self.columns), dtype)
        self._copied(array, _TO_HOST)
        return wide(array)

    def write(self, values):
        assert values.shape == (self.rows, self.columns) and self.dtype == 0
        self._copied(np.ascontiguousarray(values, np.float32), _TO_DEVICE)


class _Operand(Structure):
    _fields_ = [("matrix", _Matrix), ("transposed", c_int32), ("reserved", c_int32)]

    def read(self):
        return self.matrix.read().T if self.transposed else self.matrix.read()


class _Product(Structure):
    _fields_ = [("struct_size", c_size_t), ("a", _Operand), ("b", _Operand), ("c", _Matrix), ("alpha", c_void_p),
                ("beta", c_void_p), ("bias", c_void_p), ("tokens", c_int32), ("reserved", c_int32)]


_MULTIPLY = CFUNCTYPE(c_int32, c_void_p, POINTER(_Product), c_void_p)


class _Gemm(Structure):
    _fields_ = [("context", c_void_p), ("multiply", _MULTIPLY)]


def _row(address, size):
    row = np.empty(size, np.float32)
    _must(cuda.cudaMemcpy(c_void_p(row.ctypes.data), c_void_p(address), c_size_t(row.nbytes), _TO_HOST))
    return row


class NumpyProduct:
    """The head's product by NumPy: capsule, and how often it was called."""

    def __init__(self):
        self.calls = 0
        self.gemm = _Gemm(None, _MULTIPLY(self._multiply))
        self.capsule = _new_capsule(ctypes.addressof(self.gemm), _GEMM, None)

    def _multiply(self, _, product, stream):
        # An exception would end here, in a line on stderr; the status ends the call that is tested.
        try:
            p = product.contents
            assert p.struct_size == ctypes.sizeof(_Product)
            _must(cuda.cudaStreamSynchronize(c_void_p(stream)))
            total = _row(p.alpha, 1) * (p.a.read() @ p.b.read())
            if _row(p.beta, 1)[0] != 0:
                total += p.c.read()
            if p.bias:
                total += _row(p.bias, p.c.columns)
            p.c.write(total)
            self.calls += 1
            return 0
        except Exception as problem:
            print("the product of the test:", repr(problem))
            return 5
