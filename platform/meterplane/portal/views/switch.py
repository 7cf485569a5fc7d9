"""Choose the organisation to act for, among one's own."""

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from meterplane.portal.access import SESSION_KEY, Acting, member_action


@require_POST
@member_action
def switch(request: HttpRequest, acting: Acting) -> HttpResponse:
    wanted = request.POST.get("organisation", "")
    if wanted not in {str(membership.tenant_id) for membership in acting.memberships}:
        raise Http404
    request.session[SESSION_KEY] = wanted
    return redirect("portal:overview")
