// Operators whose memory is a window, as a caller brings them, and what the SVD of every block of
// their dense form says about a route's answers.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "server/linalg/block_spectra.h"
#include "server/linalg/local_spectra.h"

namespace ess::testing {

struct Banded {
  std::string name;
  int64_t length;
  int64_t window;
  int64_t sinks;
  std::vector<double> band;          // [length, window]
  std::vector<double> sink_columns;  // [length, sinks]

  linalg::LocalSpectra Spectra() const {
    return linalg::LocalSpectra(band, length, window, sink_columns, sinks);
  }
  std::vector<double> Dense() const;
};

// Zero; entries that must not be read are not a number.
Banded EmptyBand(std::string name, int64_t length, int64_t window, int64_t sinks);

// `entry(i, j)` for each entry that an operator of this shape has.
template <typename Entry>
Banded FilledBand(std::string name, int64_t length, int64_t window, int64_t sinks, Entry entry) {
  Banded op = EmptyBand(std::move(name), length, window, sinks);
  for (int64_t i = 0; i < length; ++i) {
    for (int64_t d = 1; d < window && d <= i; ++d) op.band[i * window + d] = entry(i, i - d);
    for (int64_t j = 0; j < sinks; ++j) {
      if (i - j >= window) op.sink_columns[i * sinks + j] = entry(i, j);
    }
  }
  return op;
}

// Softmax over the window and the sinks of 2 q k / sqrt(16); sinks have their logit raised by 2.
Banded SlidingAttention(int64_t length, int64_t window, int64_t sinks, uint64_t seed);

// Zero, shifts, uniform and hard attention, zero rows and columns, a reset, rows that fade.
std::vector<Banded> DegenerateBands(int64_t length, int64_t window, int64_t sinks);

struct BandReference {
  std::vector<std::vector<double>> sigma;  // [L]; of each position.
  double largest = 0;                      // Of all.
};

BandReference ReferenceOf(const Banded& op);

int64_t CountOf(const std::vector<double>& sigma, double threshold);
double EntropyOf(const std::vector<double>& sigma);
int64_t DoubtsOf(const linalg::PositionCounts& counts);

// `taus` [L]; the promise of block_spectra.h.
void ExpectCounts(const linalg::PositionCounts& counts, const BandReference& reference,
                  const std::vector<double>& taus, const std::string& what);

// All measures at once; returns how many counts were doubtful.
int64_t ExpectEqualToReference(const Banded& op, linalg::BlockSpectra& spectra);
int64_t ExpectEqualToReference(const Banded& op);

}  // namespace ess::testing
