"""napari plugin of xLSTM-UNet."""
