"""The operations that decide the speed of training, each beside the plain PyTorch that says what it does."""

try:
    import triton
    import triton.language as tl

    # Where kernels run. Under TRITON_INTERPRET=1 a CPU interprets them: slowly, but without a GPU.
    DEVICES = ("cuda", "cpu") if triton.knobs.runtime.interpret else ("cuda",)
except ImportError:

    class Absent:
        """Stands in for Triton, which exists for Linux only: kernels can be defined all the same."""

        def __getattr__(self, name: str):
            return self

        def __call__(self, function=None, **options):
            return function or self

    triton = tl = Absent()
    DEVICES = ()
