"""mLSTM kernels."""
