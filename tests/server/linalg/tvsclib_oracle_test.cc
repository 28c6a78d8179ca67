// An oracle that is not ours: six small operators, whose ranks, norms and entropies were computed
// once by tvsclib, a library for time-varying systems (https://github.com/MatthiasKi/tvsclib,
// version 0.2.0, commit 34c41fe6b6cb633f9da65ef8bae8fb73f4759a13; numpy 2.4.6, scipy 1.17.1). It
// never forms a block for the norms and entropies: it reduces a state-space realization that
// remembers every input to an ordered minimal one. The ranks are the state sizes of its
// approximation at a tolerance. `tests/benchmarks/tvsclib_oracle.py` prints these numbers;
// tvsclib is no part of this repository.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/linalg/inertia_tree.h"
#include "server/linalg/local_spectra.h"
#include "server/linalg/reference_linalg.h"
#include "server/linalg/short_convolution_spectra.h"
#include "tests/support/status_matchers.h"

namespace ess::linalg {
namespace {

using ::ess::testing::IsOk;

const CancellationToken kNever;
const std::vector<double> kTolerances = {0.5, 0.1, 0.001};
const std::vector<double> kTaps = {0.0, 1.0, -0.5, 0.25, 2.0};
constexpr double kAccuracy = 1e-11;  // Of the recorded numbers.

struct RecordedOperator {
  std::string name;
  int64_t length;
  int64_t window;  // T[i, j] = 0 for i - j >= window, but for columns below `sinks`.
  int64_t sinks;
  std::function<double(int64_t i, int64_t j)> entry;  // T[i, j] for j < i.
  std::vector<std::vector<int32_t>> ranks;            // For each of kTolerances: [L].
  std::vector<double> norms;                          // Of positions 1, 2, ..., L - 1.
  std::vector<double> entropies;

  std::vector<double> Dense() const {
    std::vector<double> matrix(length * length, 0.0);
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t j = 0; j < i; ++j) matrix[i * length + j] = entry(i, j);
    }
    return matrix;
  }
};

// A diagonal recurrence of three states, read after the update.
double RecurrenceEntry(int64_t i, int64_t j) {
  double total = 0;
  for (int64_t n = 0; n < 3; ++n) {
    double product = ((3 * i + n) % 7 - 3) / 4.0 * ((j + 2 * n) % 5 - 2) / 2.0;
    for (int64_t t = j + 1; t <= i; ++t) product *= ((t * (n + 2)) % 4 + 4) / 8.0;
    total += product;
  }
  return total;
}

std::vector<RecordedOperator> RecordedOperators() {
  return {
      {.name = "dense",
       .length = 16,
       .window = 16,
       .sinks = 0,
       .entry = [](int64_t i, int64_t j) { return ((7 * i + 3 * j * j + i * j) % 11 - 5) / 8.0; },
       .ranks = {{0, 1, 2, 3, 4, 4, 5, 4, 5, 5, 5, 5, 4, 3, 2, 1},
                 {0, 1, 2, 3, 4, 5, 6, 6, 7, 6, 6, 5, 4, 3, 2, 1},
                 {0, 1, 2, 3, 4, 5, 6, 6, 7, 6, 6, 5, 4, 3, 2, 1}},
       .norms = {1.5, 1.48073332403, 1.56940080004, 1.56304870167, 1.55835108919, 1.59022341222,
                 1.65056359615, 1.67128195425, 1.72179923647, 1.72458541329, 1.78726457185,
                 1.78490643702, 1.66886684136, 1.50131444159, 1.34047566185},
       .entropies = {1, 1.99944248781, 2.95700731571, 3.95853368834, 4.63777515623, 5.50943247066,
                     5.30358899147, 6.06705420249, 5.54342332406, 5.44425594036, 4.75026830526,
                     3.89102954413, 2.91862977398, 1.96653443555, 1}},
      {.name = "window",
       .length = 24,
       .window = 5,
       .sinks = 0,
       .entry =
           [](int64_t i, int64_t j) {
             return i - j < 5 ? ((5 * i + 7 * j * j + 2) % 9 + 1) / 16.0 : 0.0;
           },
       .ranks = {{0, 1, 1, 2, 1, 2, 2, 2, 1, 1, 2, 1, 2, 1, 2, 2, 2, 1, 1, 2, 1, 1, 1, 1},
                 {0, 1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4, 3, 3, 3, 3, 3, 4, 4, 4, 3, 2, 1},
                 {0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 3, 2, 1}},
       .norms = {0.852386356062, 0.905761188583, 0.921757012766, 0.84048863468,  0.715921200126,
                 0.706929914039, 0.82449579344,  1.10296512057,  0.969906161568, 1.18663623861,
                 0.991548959441, 0.981138611508, 0.84048863468,  0.715921200126, 0.706929914039,
                 0.82449579344,  1.10296512057,  0.969906161568, 1.18663623861,  0.991548959441,
                 0.972566950829, 0.698803738808, 0.605959982177},
       .entropies = {1,
                     1.83945233558,
                     2.78751615622,
                     3.1298662348,
                     3.06997968588,
                     3.01483802587,
                     2.94439598312,
                     2.81814197642,
                     3.39667734214,
                     3.00482248423,
                     3.26492079911,
                     3.33952346164,
                     3.1298662348,
                     3.06997968588,
                     3.01483802587,
                     2.94439598312,
                     2.81814197642,
                     3.39667734214,
                     3.00482248423,
                     3.26492079911,
                     2.69027256724,
                     1.9202545087,
                     1}},
      {.name = "sinks",
       .length = 20,
       .window = 4,
       .sinks = 2,
       .entry =
           [](int64_t i, int64_t j) {
             return i - j < 4 || j < 2 ? ((3 * i + 5 * j * j + i * j) % 7 - 2) / 4.0 : 0.0;
           },
       .ranks = {{0, 1, 2, 3, 3, 3, 3, 3, 4, 3, 3, 3, 3, 3, 3, 3, 2, 2, 2, 1},
                 {0, 1, 2, 3, 4, 5, 5, 4, 4, 4, 4, 4, 4, 5, 4, 4, 4, 3, 2, 1},
                 {0, 1, 2, 3, 4, 5, 5, 4, 4, 4, 4, 5, 5, 5, 4, 4, 4, 3, 2, 1}},
       .norms = {2.46221445045, 2.54356553104, 2.3563317337, 2.39007398733, 2.17226204677,
                 2.12804369271, 2.17651426584, 2.20961339001, 2.33823777151, 1.8824044687,
                 2.00058622068, 1.60359238309, 1.64196573957, 1.80932184173, 1.77908388236,
                 2.02829660468, 1.38512044731, 1.6619332648, 1},
       .entropies = {1, 1.99823283838, 2.7907406713, 3.40429641101, 3.50087013612, 3.70622828065,
                     3.19765222062, 3.51890372972, 3.33209421855, 3.1923913505, 3.77801171263,
                     3.68696299059, 3.81155121319, 3.21465271629, 3.20923747008, 2.77833311146,
                     2.49944812009, 1.91059799084, 1}},
      {.name = "convolution",
       .length = 18,
       .window = 5,
       .sinks = 0,
       .entry = [](int64_t i, int64_t j) { return i - j < 5 ? kTaps[i - j] : 0.0; },
       .ranks = {{0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 3, 2, 1},
                 {0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 3, 2, 1},
                 {0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 3, 2, 1}},
       .norms = {2.30488611432, 2.30822187045, 2.39125434179, 2.64526893291, 2.64526893291,
                 2.64526893291, 2.64526893291, 2.64526893291, 2.64526893291, 2.64526893291,
                 2.64526893291, 2.64526893291, 2.64526893291, 2.64526893291, 2.39125434179,
                 2.30822187045, 2.30488611432},
       .entropies = {1, 1.99711686862, 2.98630469102, 3.90085034577, 3.90085034577, 3.90085034577,
                     3.90085034577, 3.90085034577, 3.90085034577, 3.90085034577, 3.90085034577,
                     3.90085034577, 3.90085034577, 3.90085034577, 2.98630469102, 1.99711686862, 1}},
      {.name = "shift",
       .length = 12,
       .window = 4,
       .sinks = 0,
       .entry = [](int64_t i, int64_t j) { return i - j == 3 ? 1.0 : 0.0; },
       .ranks = {{0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 2, 1},
                 {0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 2, 1},
                 {0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 2, 1}},
       .norms = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1},
       .entropies = {1, 2, 3, 3, 3, 3, 3, 3, 3, 2, 1}},
      {.name = "recurrence",
       .length = 24,
       .window = 24,
       .sinks = 0,
       .entry = [](int64_t i, int64_t j) { return RecurrenceEntry(i, j); },
       .ranks = {{0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 0, 1, 0, 1},
                 {0, 1, 2, 1, 2, 2, 3, 3, 2, 2, 2, 2, 2, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1},
                 {0, 1, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 2, 1}},
       .norms = {0.50527731517,  0.475026449526, 0.406464156369, 0.49158018408,  0.339405832913,
                 0.402349831042, 0.430480850879, 0.406235424069, 1.05336772054,  0.337384429198,
                 0.840046041041, 0.245784884735, 0.454082123692, 0.490431968605, 0.471004199877,
                 0.79453067778,  0.430370089132, 0.876684705121, 0.234200864746, 0.335607485223,
                 0.596177152489, 0.409006226587, 0.532397366046},
       .entropies = {1,
                     1.80890121018,
                     2.04439232938,
                     2.0147765369,
                     2.24998504939,
                     2.66334755358,
                     2.51900301542,
                     2.46540119108,
                     1.53036540246,
                     2.23013425834,
                     1.88857598372,
                     2.75641936302,
                     2.40412035977,
                     2.06249634684,
                     2.21137924011,
                     1.94100237599,
                     2.2919231247,
                     1.69854159058,
                     2.48111602445,
                     2.48397375462,
                     2.12343442633,
                     1.89024186893,
                     1}},
  };
}

void ExpectRecorded(const RecordedOperator& op, BlockSpectra& spectra) {
  SCOPED_TRACE(op.name);
  const auto spectrum = spectra.Compute(
      {.tolerances = kTolerances, .spectral_norms = true, .entropies = true}, kNever);
  ASSERT_THAT(spectrum, IsOk());
  for (size_t k = 0; k < kTolerances.size(); ++k) {
    EXPECT_EQ(spectrum->tolerance_counts[k].counts, op.ranks[k]) << kTolerances[k];
  }
  for (int64_t i = 1; i < op.length; ++i) {
    EXPECT_NEAR(spectrum->spectral_norms[i], op.norms[i - 1], kAccuracy * op.norms[i - 1]) << i;
    EXPECT_NEAR(spectrum->entropies[i], op.entropies[i - 1], 1e-4 * op.entropies[i - 1]) << i;
  }
}

TEST(TvsclibOracleTest, TheReferenceAgrees) {
  for (const RecordedOperator& op : RecordedOperators()) {
    SCOPED_TRACE(op.name);
    for (int64_t i = 1; i < op.length; ++i) {
      const auto sigma = BlockSingularValues(op.Dense(), op.length, i);
      ASSERT_THAT(sigma, IsOk());
      double sum = 0;
      for (const double s : *sigma) sum += s;
      double entropy = 0;
      for (const double s : *sigma) entropy -= s > 0 ? s / sum * std::log(s / sum) : 0;
      EXPECT_NEAR(sigma->front(), op.norms[i - 1], kAccuracy * op.norms[i - 1]) << i;
      EXPECT_NEAR(std::exp(entropy), op.entropies[i - 1], kAccuracy * op.entropies[i - 1]) << i;
      for (size_t k = 0; k < kTolerances.size(); ++k) {
        EXPECT_EQ(std::count_if(sigma->begin(), sigma->end(),
                                [&](double s) { return s > kTolerances[k]; }),
                  op.ranks[k][i]);
      }
    }
  }
}

TEST(TvsclibOracleTest, TheInertiaTreeAgrees) {
  for (const RecordedOperator& op : RecordedOperators()) {
    std::vector<double> matrix = op.Dense();
    for (double& entry : matrix) entry /= 4;
    InertiaTree tree;
    ASSERT_THAT(tree.Load(matrix, op.length, kNever), IsOk());
    for (size_t k = 0; k < kTolerances.size(); ++k) {
      const auto counts = tree.CountAbove(kTolerances[k] / 4, 0.5, kNever);
      ASSERT_THAT(counts, IsOk());
      EXPECT_EQ(counts->counts, op.ranks[k]) << op.name << " " << kTolerances[k];
    }
  }
}

TEST(TvsclibOracleTest, TheWindowsAgree) {
  for (const RecordedOperator& op : RecordedOperators()) {
    std::vector<double> band(op.length * op.window, 0.0);
    std::vector<double> sinks(op.length * op.sinks, 0.0);
    for (int64_t i = 0; i < op.length; ++i) {
      for (int64_t d = 1; d < op.window && d <= i; ++d) {
        band[i * op.window + d] = op.entry(i, i - d);
      }
      for (int64_t j = 0; j < std::min(op.sinks, i); ++j) sinks[i * op.sinks + j] = op.entry(i, j);
    }
    LocalSpectra spectra(band, op.length, op.window, sinks, op.sinks);

    ExpectRecorded(op, spectra);
  }
}

TEST(TvsclibOracleTest, TheShortConvolutionsAgree) {
  int tested = 0;
  for (const RecordedOperator& op : RecordedOperators()) {
    if (op.name != "convolution" && op.name != "shift") continue;
    std::vector<double> taps(1, 0.0);
    for (int64_t d = 1; d < op.window; ++d) taps.push_back(op.entry(d, 0));
    ShortConvolutionSpectra spectra(taps, op.length);

    ExpectRecorded(op, spectra);
    ++tested;
  }
  EXPECT_EQ(tested, 2);
}

}  // namespace
}  // namespace ess::linalg
