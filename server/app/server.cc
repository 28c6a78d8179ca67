#include "server/app/server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>

#include <atomic>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "fmt/format.h"
#include "server/admission/byte_budget.h"
#include "server/admission/request_queue.h"
#include "server/admission/work_queue.h"
#include "server/app/connection_limit.h"
#include "server/app/exposure.h"
#include "server/app/health.h"
#include "server/app/listener.h"
#include "server/app/state_folder.h"
#include "server/app/version.h"
#include "server/base/device.h"
#include "server/base/device_failure.h"
#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/base/worker_pool.h"
#include "server/ess/ess_engine.h"
#include "server/inference/inference_service.h"
#include "server/jobs/job_runner.h"
#include "server/jobs/jobs.h"
#include "server/models/model_loader.h"
#include "server/pipeline/profile_pipeline.h"
#include "server/residency/model_residency.h"
#include "server/rpc/job_codec.h"
#include "server/rpc/profiler_service.h"
#include "server/security/access_file.h"
#include "server/security/live_certificates.h"
#include "server/telemetry/exposition_server.h"
#include "server/telemetry/metrics.h"

namespace ess {
namespace {

constexpr int kControlThreads = 4;
constexpr int kMaxQueuedControlCalls = 64;
constexpr int kJobThreads = 4;
constexpr int kMaxQueuedJobCalls = 16384;  // A step of each call that watches, at a change.
// Of the largest size, of ModelInfer and ModelStreamInfer, that are being made or sent.
constexpr int64_t kMostAnswers = 4;
// How often the access file is looked at.
constexpr absl::Duration kLookInterval = absl::Seconds(1);
// Time for calls that are ended to send their status, before their connections are closed.
constexpr absl::Duration kEndingTime = absl::Seconds(1);
absl::StatusOr<std::vector<residency::CatalogueEntry>> ConfiguredModels(
    const v1::ServerConfig& config) {
  std::vector<residency::CatalogueEntry> entries;
  for (const v1::ModelConfig& model : config.models()) {
    if (model.name().empty()) return absl::InvalidArgumentError("models: a model has no name");
    ESS_ASSIGN_OR_RETURN(residency::ModelOptions options, rpc::DecodeModelOptions(model.options()));
    entries.push_back({.name = model.name(),
                       .folder = model.path().empty()
                                     ? std::filesystem::path(config.model_root()) / model.name()
                                     : std::filesystem::path(model.path()),
                       .options = std::move(options)});
  }
  return entries;
}

// What GetServerInfo answers, except for the time.
v1::ServerInfo MakeServerInfo(const v1::ServerConfig& config, const std::string& device,
                              const std::vector<Measure>& default_measures) {
  v1::ServerInfo info;
  info.set_version(kVersion);
  info.set_commit(kCommit);
  info.set_torch_version(TorchVersion());
  info.set_grpc_version(grpc::Version());
  info.set_device(device);
  info.set_threads(config.threads());
  for (const std::string& type : models::SupportedModelTypes()) info.add_architectures(type);
  for (const Measure& measure : default_measures) {
    info.add_default_measures(FormatMeasure(measure));
  }
  info.set_max_prompt_tokens(config.max_prompt_tokens());
  info.set_max_prompts(config.max_prompts());
  info.set_max_reference_work(config.max_reference_work());
  info.set_max_result_bytes(config.max_result_bytes());
  info.set_max_operator_bytes(config.max_operator_bytes());
  info.set_max_operator_length(config.max_operator_length());
  info.set_max_operator_batch(config.max_operator_batch());
  info.set_max_message_bytes(config.max_message_bytes());
  info.set_metrics_measure(config.metrics_measure());
  return info;
}

// Who may come in, and by which certificates. Null: not configured.
struct Doors {
  std::unique_ptr<security::AccessFile> access_file;
  std::unique_ptr<security::LiveCertificates> certificates;
};

absl::StatusOr<Doors> OpenDoors(const v1::ServerConfig& config) {
  ESS_RETURN_IF_ERROR(CheckExposure(config));
  Doors doors;
  ESS_ASSIGN_OR_RETURN(doors.certificates, OpenCertificates(config));
  if (!config.access_file().empty()) {
    ESS_ASSIGN_OR_RETURN(doors.access_file,
                         security::AccessFile::Open(config.access_file(), kLookInterval));
  }
  if (config.allow_insecure_network() && !IsLoopback(config.listen())) {
    ESS_LOG(warn, "listening on the network with allow_insecure_network: TLS {}, tokens {}",
            doors.certificates != nullptr ? "on" : "off",
            doors.access_file != nullptr ? "on" : "off");
  }
  return doors;
}

jobs::JobLimits LimitsOfJobs(const v1::ServerConfig& config) {
  return {.prompts = {.max_prompts = config.max_job_prompts(),
                      .max_bytes = config.max_job_prompt_bytes()},
          .max_unfinished = config.max_queued_jobs(),
          .max_result_bytes = config.max_job_result_bytes(),
          .retention_seconds = config.job_retention_seconds(),
          .retention_bytes = config.job_retention_bytes()};
}

}  // namespace

// Members are destroyed from the last to the first.
struct Server::Parts {
  Parts(const v1::ServerConfig& config, std::string device_name,
        std::vector<residency::CatalogueEntry> models, const Measure& metrics_measure, Doors open)
      : device(std::move(device_name)),
        doors(std::move(open)),
        access(doors.access_file.get()),
        services{.metrics = metrics,
                 .calls = calls,
                 .access = access,
                 .longest_call = absl::Seconds(config.max_call_seconds())},
        pool(config.threads()),
        engine(pool),
        serial_pool(1),
        serial_engine(serial_pool),
        catalogue(config.model_root(), std::move(models)),
        residency(catalogue, metrics,
                  {.source = {.device = device,
                              .metrics_measure = config.metrics_measure(),
                              .device_memory_budget_bytes = config.device_memory_budget_bytes(),
                              .host_memory_budget_bytes = config.host_memory_budget_bytes()},
                   .residents = {.max_parallel_loads = config.max_parallel_loads(),
                                 .eviction_patience =
                                     absl::Seconds(config.eviction_patience_seconds())}}),
        pipeline(residency, engine, serial_engine, metrics,
                 {.limits = {.max_prompt_tokens = config.max_prompt_tokens(),
                             .max_reference_work = config.max_reference_work(),
                             .max_result_bytes = config.max_result_bytes()},
                  .metrics_measure = metrics_measure,
                  .max_metrics_layers = config.max_metrics_layers()}),
        request_queue({.large_slots = config.max_running_profiles(),
                       .small_slots = config.threads(),
                       .max_requests = config.max_queued_profiles(),
                       .max_tokens = config.max_queued_tokens()},
                      metrics),
        control_queue({.threads = kControlThreads,
                       .max_queued = kMaxQueuedControlCalls,
                       .limit_name = "loads, unloads and estimates"}),
        job_queue({.threads = kJobThreads,
                   .max_queued = kMaxQueuedJobCalls,
                   .limit_name = "calls about jobs"}),
        upload_budget(config.max_uploaded_bytes(), "max_uploaded_bytes"),
        service(
            {.pipeline = pipeline,
             .queue = request_queue,
             .catalogue = catalogue,
             .services = services,
             .limits = {.max_prompts = config.max_prompts(), .default_measures = kDefaultMeasures},
             .longest_stall = absl::Seconds(config.max_stall_seconds()),
             .server_version = kVersion},
            {.engine = engine,
             .queue = request_queue,
             .budget = upload_budget,
             .services = services,
             .limits = {.max_operator_bytes = config.max_operator_bytes(),
                        .max_operator_length = config.max_operator_length(),
                        .max_operator_batch = config.max_operator_batch(),
                        .max_result_bytes = config.max_result_bytes(),
                        .max_reference_work = config.max_reference_work(),
                        .default_measures = kDefaultMeasures},
             .longest_stall = absl::Seconds(config.max_stall_seconds())},
            {.services = services,
             .jobs = jobs,
             .queue = job_queue,
             .catalogue = catalogue,
             .default_measures = kDefaultMeasures,
             .prompt_root = config.prompt_root(),
             .longest_stall = absl::Seconds(config.max_stall_seconds())},
            residency, control_queue, MakeServerInfo(config, device, kDefaultMeasures)),
        answer_budget(kMostAnswers * config.max_inference_answer_bytes(),
                      "4 times max_inference_answer_bytes"),
        inference_service(
            {.pipeline = pipeline,
             .queue = request_queue,
             .catalogue = catalogue,
             .residency = residency,
             .services = services,
             .statistics = inference_statistics,
             .answer_budget = answer_budget,
             .limits = {.max_prompts = config.max_prompts(), .default_measures = kDefaultMeasures},
             .max_answer_bytes = config.max_inference_answer_bytes(),
             .longest_stall = absl::Seconds(config.max_stall_seconds()),
             .server_version = kVersion},
            residency, control_queue, ready) {}

  void StartJobs() {
    job_runner = std::make_unique<jobs::JobRunner>(
        jobs::RunServices{.jobs = *jobs,
                          .pipeline = pipeline,
                          .residency = residency,
                          .server_version = kVersion},
        request_queue, catalogue, [this](const std::string& specification) {
          return rpc::ParseJobSpecification(specification, kDefaultMeasures);
        });
  }

  const std::vector<Measure> kDefaultMeasures = {{.kind = Measure::Kind::kTolerance, .value = 1e-3},
                                                 {.kind = Measure::Kind::kEntropy}};
  const std::string device;
  std::unique_ptr<StateFolder> state_folder;  // Null without state_dir.
  telemetry::Metrics metrics;
  rpc::OpenCalls calls;
  const Doors doors;
  const rpc::Access access;
  const rpc::CallServices services;
  std::unique_ptr<telemetry::ExpositionServer> exposition;
  WorkerPool pool;
  EssEngine engine;
  WorkerPool serial_pool;
  EssEngine serial_engine;  // Of requests that are too small for more than one thread.
  residency::ModelCatalogue catalogue;
  residency::ModelResidency residency;
  ProfilePipeline pipeline;
  admission::RequestQueue request_queue;
  std::unique_ptr<jobs::Jobs> jobs;  // Null without state_dir.
  admission::WorkQueue control_queue;
  admission::WorkQueue job_queue;
  admission::ByteBudget upload_budget;
  rpc::ProfilerService service;
  inference::InferenceStatistics inference_statistics;
  admission::ByteBudget answer_budget;
  std::atomic<bool> ready = false;
  inference::InferenceService inference_service;
  std::string grpc_address;
  std::unique_ptr<grpc::Server> grpc_server;
  std::optional<Health> health;
  std::unique_ptr<jobs::JobRunner> job_runner;  // Null without state_dir.
};

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Server::~Server() { Shutdown(); }

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const v1::ServerConfig& config) {
  ESS_ASSIGN_OR_RETURN(Doors doors, OpenDoors(config));
  ESS_ASSIGN_OR_RETURN(const std::string device, ResolveDevice(config.device()));
  ESS_ASSIGN_OR_RETURN(const Measure metrics_measure, ParseMeasure(config.metrics_measure()));
  ESS_ASSIGN_OR_RETURN(std::vector<residency::CatalogueEntry> models, ConfiguredModels(config));
  std::error_code error;
  if (!config.model_root().empty() && !std::filesystem::is_directory(config.model_root(), error)) {
    return absl::InvalidArgumentError(
        fmt::format("model_root: '{}' is not a folder", config.model_root()));
  }
  std::unique_ptr<StateFolder> state_folder;
  if (!config.state_dir().empty()) {
    ESS_ASSIGN_OR_RETURN(StateFolder folder, StateFolder::Open(config.state_dir()));
    state_folder = std::make_unique<StateFolder>(std::move(folder));
  }
  SetTorchThreads(config.threads());
  auto parts =
      std::make_unique<Parts>(config, device, std::move(models), metrics_measure, std::move(doors));
  parts->state_folder = std::move(state_folder);
  if (!config.prompt_root().empty() &&
      !std::filesystem::is_directory(config.prompt_root(), error)) {
    return absl::InvalidArgumentError(
        fmt::format("prompt_root: '{}' is not a folder", config.prompt_root()));
  }
  if (!config.state_dir().empty()) {
    ESS_ASSIGN_OR_RETURN(
        parts->jobs, jobs::Jobs::Open(config.state_dir(), LimitsOfJobs(config), parts->metrics));
  }
  ESS_ASSIGN_OR_RETURN(parts->exposition,
                       telemetry::ExpositionServer::Start(config.metrics_listen(), parts->metrics));
  parts->metrics.build_info.Set({kVersion, kCommit, TorchVersion(), grpc::Version()}, 1);

  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort(config.listen(),
                           MakeServerCredentials(config, parts->doors.certificates.get()), &port);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  SetConnectionLimits(config, builder);
  if (!ServesReflection(config)) RemoveReflection(builder);
  builder.RegisterService(&parts->service);
  builder.RegisterService(&parts->inference_service);
  parts->grpc_server = builder.BuildAndStart();
  if (parts->grpc_server == nullptr || port == 0) {
    return absl::UnavailableError(
        fmt::format("listen: cannot listen on {}: the port is in use or the address is not local",
                    config.listen()));
  }
  LimitConnections(config.max_connections());
  parts->health.emplace(*parts->grpc_server->GetHealthCheckService(), parts->ready);
  parts->metrics.device_healthy.Set({device}, 1);
  parts->grpc_address =
      fmt::format("{}:{}", config.listen().substr(0, config.listen().rfind(':')), port);

  const CancellationToken no_cancellation;
  for (const std::string& name : config.preload()) {
    const auto loaded = parts->residency.Load({.name = name}, no_cancellation);
    if (!loaded.ok()) {
      ESS_LOG(error, "preload of '{}' failed: {}", name, std::string(loaded.status().message()));
    }
  }
  if (parts->jobs != nullptr) parts->StartJobs();
  if (!DeviceFailure()) parts->health->SetReady(true);
  return std::unique_ptr<Server>(new Server(std::move(parts)));
}

const std::string& Server::grpc_address() const { return parts_->grpc_address; }
const std::string& Server::metrics_address() const { return parts_->exposition->address(); }

void Server::StopServing() { parts_->health->SetReady(false); }

void Server::RefuseWork() {
  if (parts_->jobs != nullptr) parts_->jobs->Drain();
  if (parts_->job_runner != nullptr) parts_->job_runner->Stop();
  parts_->control_queue.Drain(absl::ZeroDuration());
  parts_->request_queue.Drain(absl::ZeroDuration());
}

void Server::ReportDeviceFailure() {
  parts_->health->SetDead();
  parts_->metrics.device_healthy.Set({parts_->device}, 0);
  RefuseWork();
}

size_t Server::AwaitCalls(absl::Duration limit) { return parts_->calls.AwaitNone(limit); }

void Server::EndCalls() {
  parts_->calls.CancelAll();
  parts_->request_queue.EndWaiting(absl::UnavailableError("the server is shutting down"));
  AwaitCalls(kEndingTime);
}

void Server::Shutdown() {
  // Cancels what still runs at once, and waits for it.
  parts_->grpc_server->Shutdown(absl::ToChronoTime(absl::Now()));
  parts_->job_runner = nullptr;
  parts_->residency.Stop();  // It may still hold what belonged to a call.
}

}  // namespace ess
