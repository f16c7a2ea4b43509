"""A network for the 8 × 8 digits: what `prune run SPEC --with networks.py` makes known to the spec by its name."""

from torch import Tensor, nn

from prunelang import register


@register.model(name="small_cnn", input_shape=(1, 8, 8))
class SmallCnn(nn.Module):
    """Two 3 × 3 convolutions and a classifier; the layers are called conv1, conv2 and fc."""

    def __init__(self, channels: int = 12) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.fc = nn.Linear(2 * channels * 4 * 4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        x = nn.functional.max_pool2d(self.conv2(x).relu(), 2)
        y: Tensor = self.fc(x.flatten(1))
        return y
