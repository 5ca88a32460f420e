#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace praetor {

/// srun and its options for the learner group: the first nodes, as many as there are ranks, and
/// PMIx where they are an MPI job. `heterogeneous`: in the first component of the job.
std::vector<std::string> learner_step(const std::vector<std::string>& nodes,
                                      int64_t ranks,
                                      bool heterogeneous);

/// The same for worker `number` of the run: round robin, and a start after a failure goes to the
/// next node, since Slurm takes a while to call one dead. `heterogeneous`: in the second component.
std::vector<std::string> worker_step(const std::string& name,
                                     const std::vector<std::string>& nodes,
                                     int64_t number,
                                     int64_t attempt,
                                     bool heterogeneous);

/// The ids of the steps called so, from "ID NAME" lines of squeue.
std::vector<std::string> steps_named(const std::string& squeue_lines,
                                     const std::vector<std::string>& names);

}  // namespace praetor
