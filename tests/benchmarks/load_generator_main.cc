// Calls Profile from many threads, and prints what came of it: one line of JSON.
//
//   load_generator ADDRESS MODEL TOKENS THREADS SECONDS RATE
//
// RATE 0: each thread calls again when it has its answer. Else so many calls a second in all,
// whether answers come or not; THREADS bounds how many are open.
#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ess/v1/profiler.grpc.pb.h"

namespace {

using Clock = std::chrono::steady_clock;

struct Outcome {
  std::vector<double> answered;  // Seconds of each call.
  std::vector<double> refused;
  int64_t other = 0;
};

double Percentile(std::vector<double>& seconds, double share) {
  if (seconds.empty()) return 0;
  std::sort(seconds.begin(), seconds.end());
  return seconds[static_cast<size_t>(share * static_cast<double>(seconds.size() - 1))];
}

void CallOnce(ess::v1::EssProfiler::Stub& stub, const ess::v1::ProfileRequest& request,
              Outcome& outcome) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  const auto start = Clock::now();
  const auto reader = stub.Profile(&context, request);
  ess::v1::ProfileResponse message;
  while (reader->Read(&message)) continue;
  const grpc::Status status = reader->Finish();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  if (status.ok()) {
    outcome.answered.push_back(seconds);
  } else if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) {
    outcome.refused.push_back(seconds);
  } else {
    ++outcome.other;
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) {
    std::cerr << "usage: load_generator ADDRESS MODEL TOKENS THREADS SECONDS RATE\n";
    return 2;
  }
  const int threads = std::atoi(argv[4]);
  const double limit = std::atof(argv[5]);
  const double rate = std::atof(argv[6]);
  ess::v1::ProfileRequest request;
  request.set_model(argv[2]);
  request.add_measures()->set_tolerance(1e-3);
  auto* ids = request.add_prompts()->mutable_token_ids();
  for (int i = 0; i < std::atoi(argv[3]); ++i) ids->add_ids(i * 7919 % 256);

  const auto channel = grpc::CreateChannel(argv[1], grpc::InsecureChannelCredentials());
  const auto start = Clock::now();
  std::atomic<int64_t> begun{0};
  std::vector<Outcome> outcomes(threads);
  std::vector<std::thread> callers;
  for (Outcome& outcome : outcomes) {
    callers.emplace_back([&] {
      const auto stub = ess::v1::EssProfiler::NewStub(channel);
      while (true) {
        const int64_t number = begun.fetch_add(1);
        if (rate > 0) {
          const double at = static_cast<double>(number) / rate;
          if (at > limit) return;
          std::this_thread::sleep_until(start + std::chrono::duration_cast<Clock::duration>(
                                                    std::chrono::duration<double>(at)));
        } else if (std::chrono::duration<double>(Clock::now() - start).count() > limit) {
          return;
        }
        CallOnce(*stub, request, outcome);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  Outcome all;
  for (const Outcome& outcome : outcomes) {
    all.answered.insert(all.answered.end(), outcome.answered.begin(), outcome.answered.end());
    all.refused.insert(all.refused.end(), outcome.refused.begin(), outcome.refused.end());
    all.other += outcome.other;
  }
  std::cout << "{\"seconds\": " << seconds << ", \"answered\": " << all.answered.size()
            << ", \"refused\": " << all.refused.size() << ", \"other\": " << all.other
            << ", \"p50\": " << Percentile(all.answered, 0.5)
            << ", \"p99\": " << Percentile(all.answered, 0.99)
            << ", \"refused_p99\": " << Percentile(all.refused, 0.99) << "}" << std::endl;
  return 0;
}
