"""Reference networks under the names of their papers' layers. Each file needs torch alone and can be copied whole,
but for the spiking ones, which need the neurons of `prunelang.runtime.spiking`, and so spikingjelly."""
