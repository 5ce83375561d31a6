//  copies.cuh - decoder/vae/cuda/copies.cuh for lanes: an address is a place in the
//  window

#ifndef LUNA_DECODER_VAE_CUDA_COPIES_CUH
#define LUNA_DECODER_VAE_CUDA_COPIES_CUH

inline uint32_t shared_address(const void *p)
{
    const ptrdiff_t at = static_cast<const unsigned char *>(p) - lanes::window;
    if (at < 0 || at >= lanes::WINDOW_BYTES) abort();
    return (uint32_t)at;
}

inline void copy_16(uint32_t to, const void *from, bool there)
{
    if (to % 16 || (there && reinterpret_cast<uintptr_t>(from) % 16)) abort();
    lanes::ask_for_copy(lanes::window + to, from, 16, there);
}

inline void copies_wait()
{
    lanes::wait_for_copies();
}

#endif
