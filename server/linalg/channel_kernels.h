// The inner loops of the channel route, for the best instruction set of the machine.
#pragma once

#include <cstdint>

#include "server/linalg/channel_window.h"

namespace ess::linalg {

// One entry is `lanes` doubles, one for each channel side by side; all memory is aligned to 64
// bytes. "Triangle": the lower triangle of tiles of channel_window.h.
struct ChannelKernels {
  int64_t lanes;

  // Fills transition, input, output and inside of the window, or transition and input alone, where
  // `largest` [2, lanes] is raised to the largest |b| and |c|. States from N on must be there
  // already: transition 1, input and output 0.
  void (*read_window)(const WindowLayout& layout, const WindowSource& source,
                      const ChannelWindow& window);
  void (*read_past)(const WindowLayout& layout, const WindowSource& source,
                    const ChannelWindow& window, double* largest);

  // L of the past and R of the future, moved on by 8 positions: triangles of
  // [diag(transition) L, positions^T] and [R diag(transition); positions]. `out` may be `factor`.
  void (*append_past)(const WindowLayout& layout, const double* factor, const double* transition,
                      const double* positions, double* out);
  void (*append_future)(const WindowLayout& layout, const double* factor, const double* transition,
                        const double* positions, double* out);
  // The same by one position: `gates`, `position` [padded N].
  void (*append_past_position)(const WindowLayout& layout, const double* factor,
                               const double* gates, const double* position, double* out);
  void (*append_future_position)(const WindowLayout& layout, const double* factor,
                                 const double* gates, const double* position, double* out);

  // Fills the description of a window that is read, with past and future; then its norm_bounds.
  // `scratch`: scratch_size.
  void (*describe_window)(const WindowLayout& layout, const ChannelWindow& window, double* scratch);
  void (*bound_norms)(const WindowLayout& layout, const ChannelWindow& window);

  // counts [8, lanes] of singular values above tau, and a bound of the largest |u v| of the
  // elimination where tau is 1, within a factor of 4 (tiles + 4); infinity where a pivot was 0 or
  // no number.
  void (*count_window)(const WindowLayout& layout, const ChannelWindow& window,
                       const double* inverse_tau, double* scratch, double* counts, double* growth);

  // out = left right, all triangles.
  void (*lower_product)(const WindowLayout& layout, const double* left, const double* right,
                        double* out);

  // The squares of a triangle's bidiagonal form [2 padded N - 1]: entries (0, 0), (0, 1), (1, 1)
  // and so on, after division by its Frobenius norm, whose square is returned beside it.
  void (*bidiagonalize)(const WindowLayout& layout, const double* lower, double* scratch,
                        double* squares, double* squared_norms);

  // From the bidiagonal form, per lane: singular values above `thresholds`; the largest one;
  // exp(-sum p ln p) with the relative change that other quadrature weights make. `size`: padded N.
  void (*count_singular_values)(int64_t size, const double* squares, const double* squared_norms,
                                const double* thresholds, double* counts);
  void (*largest_singular_values)(int64_t size, const double* squares, const double* squared_norms,
                                  double* top);
  void (*entropies)(int64_t size, const double* squares, const double* squared_norms,
                    double* entropies, double* changes);

  // Doubles that `scratch` must have.
  int64_t (*scratch_size)(const WindowLayout& layout);
};

const ChannelKernels& BestChannelKernels();

}  // namespace ess::linalg
