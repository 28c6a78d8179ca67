#include "server/rpc/method_roles.h"

namespace ess::rpc {
namespace {

using security::Role;

constexpr std::string_view kEss = "ess.v1.EssProfiler";
constexpr std::string_view kInference = "inference.GRPCInferenceService";
constexpr std::string_view kHealth = "grpc.health.v1.Health";
constexpr std::string_view kReflectionV1 = "grpc.reflection.v1.ServerReflection";
constexpr std::string_view kReflection = "grpc.reflection.v1alpha.ServerReflection";

constexpr MethodRole kRows[] = {
    {kEss, "GetServerInfo", Role::kViewer},
    {kEss, "ListModels", Role::kViewer},
    {kEss, "GetModel", Role::kViewer},
    {kEss, "Profile", Role::kUser},
    {kEss, "ProfileOperators", Role::kUser},
    {kEss, "EstimateProfile", Role::kUser},
    {kEss, "SubmitJob", Role::kUser},
    {kEss, "GetJob", Role::kUser},
    {kEss, "ListJobs", Role::kUser},
    {kEss, "WatchJob", Role::kUser},
    {kEss, "CancelJob", Role::kUser},
    {kEss, "DeleteJob", Role::kUser},
    {kEss, "FetchJobResult", Role::kUser},
    {kEss, "LoadModel", Role::kAdmin},
    {kEss, "UnloadModel", Role::kAdmin},
    {kInference, "ServerLive", Role::kViewer},
    {kInference, "ServerReady", Role::kViewer},
    {kInference, "ModelReady", Role::kViewer},
    {kInference, "ServerMetadata", Role::kViewer},
    {kInference, "ModelMetadata", Role::kViewer},
    {kInference, "ModelConfig", Role::kViewer},
    {kInference, "ModelStatistics", Role::kViewer},
    {kInference, "RepositoryIndex", Role::kViewer},
    {kInference, "ModelInfer", Role::kUser},
    {kInference, "ModelStreamInfer", Role::kUser},
    {kInference, "RepositoryModelLoad", Role::kAdmin},
    {kInference, "RepositoryModelUnload", Role::kAdmin},
    {kInference, "TraceSetting", Role::kAdmin},
    {kInference, "LogSettings", Role::kAdmin},
    {kInference, "SystemSharedMemoryStatus", Role::kAdmin},
    {kInference, "SystemSharedMemoryRegister", Role::kAdmin},
    {kInference, "SystemSharedMemoryUnregister", Role::kAdmin},
    {kInference, "CudaSharedMemoryStatus", Role::kAdmin},
    {kInference, "CudaSharedMemoryRegister", Role::kAdmin},
    {kInference, "CudaSharedMemoryUnregister", Role::kAdmin},
    {kHealth, "Check", std::nullopt},
    {kHealth, "Watch", std::nullopt},
    {kHealth, "List", std::nullopt},  // Of newer versions of gRPC, as the last row.
    {kReflection, "ServerReflectionInfo", std::nullopt},
    {kReflectionV1, "ServerReflectionInfo", std::nullopt},
};

}  // namespace

std::span<const MethodRole> MethodRoles() { return kRows; }

const MethodRole* FindMethodRole(std::string_view method) {
  for (const MethodRole& row : kRows) {
    if (row.method == method && row.least) return &row;
  }
  return nullptr;
}

}  // namespace ess::rpc
