// The quadrature behind the entropy measure: sum sigma and sum sigma ln sigma from a few
// determinants.
//
// With the singular values divided by a scale s, for x = sigma / s in (0, 1]:
//
//     x      ~ sum_j a_j log(1 + x^2 / t_j^2) + a x^2,
//     x ln x ~ sum_j b_j log(1 + x^2 / t_j^2) + b x^2,
//
// so with phi_j = log det(I + H^T H / (s t_j)^2) and F the Frobenius norm of H
//
//     S = sum sigma / s ~ sum_j a_j phi_j + a (F / s)^2,    P likewise with b,
//     exp(-sum p ln p) = exp(log S - P / S),                p = sigma / sum sigma.
//
// The nodes are dense at the top and sparse at the bottom (log t_j quadratic in j); the weights
// were fitted by least squares, reweighted to equal relative errors, over x in [9e-8, 1]. The
// entropy's relative error is below 6e-6 for s = F, 1.1e-5 for s = 2 F, 3.5e-5 for s = 4 F. Two
// further sets of weights leave out the first and the last node: the larger of the two changes
// they make, then the maximum over 9 neighbouring positions, is an estimate of the error that was
// never below it, typically 60 times above it.
#pragma once

#include <array>
#include <span>
#include <vector>

namespace ess::linalg {

struct EntropyWeights {
  double sum;      // a_j
  double product;  // b_j
};

struct EntropyNode {
  double shift;  // t_j; 0 for the last row, the weights of (F / s)^2.
  EntropyWeights all;
  EntropyWeights without_first;
  EntropyWeights without_last;
};

inline constexpr int kEntropyShifts = 20;
// Largest ratio of the scale to F that keeps the error below 1e-4.
inline constexpr double kLargestScaleRatio = 8;

inline constexpr std::array<EntropyNode, kEntropyShifts + 1> kEntropyRule = {{
    {1.5448986725154417,
     {0.4354813204397546, 0.7239109786710637},
     {0, 0},
     {0.5280729089800339, -0.7743122414550201}},
    {0.8227727634459148,
     {0.15785352873973713, 0.11051186909508728},
     {0.2968040720250297, 0.34147003107884705},
     {0.12834029614032236, 0.5917785871981186}},
    {0.42137018248286134,
     {0.09339668852078542, 0.014620877140716783},
     {0.06351123485858258, -0.035020052574919046},
     {0.0996924152895582, -0.0900488231044089}},
    {0.20751604461056958,
     {0.04796280382039912, -0.027730755163826528},
     {0.05557486065920215, -0.015101641071591636},
     {0.04638869129347138, -0.0007302911669447882}},
    {0.09827511223464647,
     {0.02401029154250016, -0.03165023578175967},
     {0.021526593139336463, -0.03576991554636298},
     {0.02451594813902482, -0.0405810153236779}},
    {0.04475477757091131,
     {0.011481779043338292, -0.024193303998053695},
     {0.012448646012418447, -0.022589159413004434},
     {0.011286070148500962, -0.020658118429254187}},
    {0.019599240611879315,
     {0.005273625836232416, -0.015462988435265902},
     {0.0048551232527952225, -0.016156852205962104},
     {0.0053580363353722005, -0.01702635534484171}},
    {0.008253593454747642,
     {0.00232350890508929, -0.008822616200119525},
     {0.002515661614031936, -0.008504655341782155},
     {0.002284639268580141, -0.008088328449543882}},
    {0.0033423420176798223,
     {0.0009825537991253015, -0.0046191034405473844},
     {0.0008914983024334543, -0.0047694281921945815},
     {0.001001140067168866, -0.004973527532256932}},
    {0.0013015554982633627,
     {0.00039883839438267495, -0.002251103388596813},
     {0.00044265970635686035, -0.002178588680441945},
     {0.00038974413090954647, -0.0020778838632596742}},
    {0.0004873920944554282,
     {0.0001554227181803068, -0.0010299053598790352},
     {0.00013419225354115242, -0.0010652147000301446},
     {0.0001599192775458385, -0.0011147207419631474}},
    {0.0001755085414491298,
     {5.815344027261662e-05, -0.00044474745622952134},
     {6.844397690306248e-05, -0.0004274843575377328},
     {5.592700178400812e-05, -0.0004033025800873381}},
    {6.0774587597026304e-05,
     {2.0894870418937698e-05, -0.00018195673106536142},
     {1.5925078509155595e-05, -0.00019040110302440813},
     {2.199703248588312e-05, -0.00020219967207806772}},
    {2.0237169579382718e-05,
     {7.209139518280841e-06, -7.07112110791541e-05},
     {9.598796103136423e-06, -6.65874791526142e-05},
     {6.666250249450773e-06, -6.079149796292601e-05}},
    {6.480097022011969e-06,
     {2.389805708373302e-06, -2.6155950862046686e-05},
     {1.2428655890023088e-06, -2.8178222656853177e-05},
     {2.6588396510338494e-06, -3.105777789436565e-05}},
    {1.9953414880059075e-06,
     {7.601147712189369e-07, -9.221502210367012e-06},
     {1.3242571537586237e-06, -8.215688640231448e-06},
     {6.2422702149642e-07, -6.738496588635021e-06}},
    {5.908223885385578e-07,
     {2.3291943615329313e-07, -3.1011834562275886e-06},
     {-6.910642209857857e-08, -3.642698409140108e-06},
     {3.075350928609376e-07, -4.468551334666148e-06}},
    {1.6822891439919974e-07,
     {6.850771124871618e-08, -1.0097459507372355e-06},
     {2.671615279624321e-07, -6.572256640516133e-07},
     {1.9189925500758776e-08, -1.0192599099133328e-07}},
    {4.606258723651336e-08,
     {1.6095159501183612e-08, -2.3755625135228436e-07},
     {-1.0985377943246829e-07, -4.615213281186933e-07},
     {4.7390396807843244e-08, -8.146980713665868e-07}},
    {1.2128301928946927e-08,
     {9.887230116935817e-09, -1.8243886372559163e-07},
     {4.970063909922997e-08, -1.1186155739561716e-07},
     {0, 0}},
    {0,
     {0.10754880881845806, 0.3229811796104394},
     {0.17385718676593864, 0.43320231043448915},
     {0.09345861582126855, 0.5501447897021341}},
}};

struct EntropyEstimate {
  double entropy = 0;  // exp(-sum p ln p), p = sigma / sum sigma.
  double error = 0;    // Relative; see SpreadErrors.
};

// `log_dets[j]`: phi_j; `square`: (F / s)^2, not 0; `rank_bound`: the smaller side of H.
EntropyEstimate EstimateEntropy(const std::array<double, kEntropyShifts>& log_dets, double square,
                                double rank_bound);

// The largest error within 4 positions of each one whose own is not 0. The error at one position
// can be too small by accident, but not at nine.
std::vector<double> SpreadErrors(std::span<const double> errors);

}  // namespace ess::linalg
