// The handles of the head path in C: the only objects there that have to be destroyed.
#include "head_memory.hpp"

namespace pk = prospect::kernels;

prospect_status prospect_head_workspace_create(int64_t bytes, prospect_head_workspace** workspace,
                                               prospect_error* error) {
  return pk::guard(error, [&] {
    auto& created = pk::require(workspace, "workspace");  // before there is anything to lose
    created = new prospect_head_workspace{bytes};
  });
}
void prospect_head_workspace_destroy(prospect_head_workspace* workspace) { delete workspace; }

prospect_status prospect_head_ticket_create(prospect_head_ticket** ticket, prospect_error* error) {
  return pk::guard(error, [&] {
    auto& created = pk::require(ticket, "ticket");
    created = new prospect_head_ticket{};
  });
}
void prospect_head_ticket_destroy(prospect_head_ticket* ticket) { delete ticket; }
int64_t prospect_head_ticket_kept(const prospect_head_ticket* ticket) {
  return ticket == nullptr ? 0 : ticket->ticket.kept();
}
