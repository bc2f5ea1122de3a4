"""Masks, gradients and task vectors under the microscope (`harness analyse`)."""
