#include "server/linalg/entropy_rule.h"

#include <algorithm>
#include <cmath>

namespace ess::linalg {
namespace {

// Weights of one log-determinant, for the sum of sigma and for that of sigma log sigma.
struct Weights {
  double sigma;
  double sigma_log;
};

// The last row is the weight of ||H||_F^2. Fitted once by reweighted least squares, to x and x log
// x on [9e-8, 1], relative to x^0.517, in the basis log(1 + x^2 / t_j^2), x^2.

constexpr Weights kWeights[kEntropyShifts + 1] = {
    {0.4354813204397546, 0.7239109786710637},
    {0.15785352873973713, 0.11051186909508728},
    {0.09339668852078542, 0.014620877140716783},
    {0.04796280382039912, -0.027730755163826528},
    {0.02401029154250016, -0.03165023578175967},
    {0.011481779043338292, -0.024193303998053695},
    {0.005273625836232416, -0.015462988435265902},
    {0.00232350890508929, -0.008822616200119525},
    {0.0009825537991253015, -0.0046191034405473844},
    {0.00039883839438267495, -0.002251103388596813},
    {0.0001554227181803068, -0.0010299053598790352},
    {5.815344027261662e-05, -0.00044474745622952134},
    {2.0894870418937698e-05, -0.00018195673106536142},
    {7.209139518280841e-06, -7.07112110791541e-05},
    {2.389805708373302e-06, -2.6155950862046686e-05},
    {7.601147712189369e-07, -9.221502210367012e-06},
    {2.3291943615329313e-07, -3.1011834562275886e-06},
    {6.850771124871618e-08, -1.0097459507372355e-06},
    {1.6095159501183612e-08, -2.3755625135228436e-07},
    {9.887230116935817e-09, -1.8243886372559163e-07},
    {0.10754880881845806, 0.3229811796104394},
};

// The same fit without the first and without the last shift: how much a shift matters.

constexpr Weights kWithoutFirst[kEntropyShifts + 1] = {
    {0.0, 0.0},
    {0.2968040720250297, 0.34147003107884705},
    {0.06351123485858258, -0.035020052574919046},
    {0.05557486065920215, -0.015101641071591636},
    {0.021526593139336463, -0.03576991554636298},
    {0.012448646012418447, -0.022589159413004434},
    {0.0048551232527952225, -0.016156852205962104},
    {0.002515661614031936, -0.008504655341782155},
    {0.0008914983024334543, -0.0047694281921945815},
    {0.00044265970635686035, -0.002178588680441945},
    {0.00013419225354115242, -0.0010652147000301446},
    {6.844397690306248e-05, -0.0004274843575377328},
    {1.5925078509155595e-05, -0.00019040110302440813},
    {9.598796103136423e-06, -6.65874791526142e-05},
    {1.2428655890023088e-06, -2.8178222656853177e-05},
    {1.3242571537586237e-06, -8.215688640231448e-06},
    {-6.910642209857857e-08, -3.642698409140108e-06},
    {2.671615279624321e-07, -6.572256640516133e-07},
    {-1.0985377943246829e-07, -4.615213281186933e-07},
    {4.970063909922997e-08, -1.1186155739561716e-07},
    {0.17385718676593864, 0.43320231043448915},
};

constexpr Weights kWithoutLast[kEntropyShifts + 1] = {
    {0.5280729089800339, -0.7743122414550201},
    {0.12834029614032236, 0.5917785871981186},
    {0.0996924152895582, -0.0900488231044089},
    {0.04638869129347138, -0.0007302911669447882},
    {0.02451594813902482, -0.0405810153236779},
    {0.011286070148500962, -0.020658118429254187},
    {0.0053580363353722005, -0.01702635534484171},
    {0.002284639268580141, -0.008088328449543882},
    {0.001001140067168866, -0.004973527532256932},
    {0.00038974413090954647, -0.0020778838632596742},
    {0.0001599192775458385, -0.0011147207419631474},
    {5.592700178400812e-05, -0.0004033025800873381},
    {2.199703248588312e-05, -0.00020219967207806772},
    {6.666250249450773e-06, -6.079149796292601e-05},
    {2.6588396510338494e-06, -3.105777789436565e-05},
    {6.2422702149642e-07, -6.738496588635021e-06},
    {3.075350928609376e-07, -4.468551334666148e-06},
    {1.9189925500758776e-08, -1.0192599099133328e-07},
    {4.7390396807843244e-08, -8.146980713665868e-07},
    {0.0, 0.0},
    {0.09345861582126855, 0.5501447897021341},
};

double EntropyBy(const Weights* weights, const std::array<double, kEntropyShifts>& log_dets,
                 double square) {
  double sigma = weights[kEntropyShifts].sigma * square;
  double sigma_log = weights[kEntropyShifts].sigma_log * square;
  for (int j = 0; j < kEntropyShifts; ++j) {
    sigma += weights[j].sigma * log_dets[j];
    sigma_log += weights[j].sigma_log * log_dets[j];
  }
  return sigma * std::exp(-sigma_log / sigma);
}

}  // namespace

EntropyEstimate EstimateEntropy(const std::array<double, kEntropyShifts>& log_dets, double square,
                                double rank_bound) {
  const double entropy = EntropyBy(kWeights, log_dets, square);
  const double change = std::max(std::abs(EntropyBy(kWithoutFirst, log_dets, square) - entropy),
                                 std::abs(EntropyBy(kWithoutLast, log_dets, square) - entropy));
  return {.entropy = std::clamp(entropy, 1.0, std::max(rank_bound, 1.0)),
          .error = change / entropy};
}

std::vector<double> SpreadErrors(std::span<const double> errors) {
  constexpr int64_t kReach = 4;
  const int64_t count = static_cast<int64_t>(errors.size());
  std::vector<double> spread(count, 0.0);
  for (int64_t i = 0; i < count; ++i) {
    const auto begin = errors.begin() + std::max(i - kReach, int64_t{0});
    const auto end = errors.begin() + std::min(i + kReach + 1, count);
    if (errors[i] > 0) spread[i] = *std::max_element(begin, end);
  }
  return spread;
}

}  // namespace ess::linalg
