"""What a run will take: bytes on disk, memory of every step, time. Estimates from headers and configs alone.

Light: imports no torch and reads no weights. `sizes` knows models, `demand` what a step needs, `machine` what
there is, `work` the steps of a family whether or not its models are here.
"""
