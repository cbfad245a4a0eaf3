// One processing element: every clock it takes a tile and a kernel of CHANNELS channels. Results
// leave five clocks after the last channel pass.
// bypass: 1x1 mode; it may only change while no operands are on their way.
module winograd_pe #(
@PARAMETERS
) (
    input  wire                                       clock,
    input  wire                                       reset,
    input  wire                                       bypass,
    input  wire                                       in_valid,
    input  wire                                       in_first,  // of the passes of a result
    input  wire                                       in_last,
    input  wire [CHANNELS*OMEGA*OMEGA*INPUT_BITS-1:0] tiles,
    input  wire [CHANNELS*9*KERNEL_BITS-1:0]          kernels,
    output reg                                        out_valid,
    output wire [OMEGA*OMEGA*OUTPUT_BITS-1:0]         results
);
    localparam TILE = OMEGA*OMEGA;
    localparam VALUE_BITS = VALUE_FULL_BITS - VALUE_DROPPED;
    localparam FACTOR_BITS = FACTOR_FULL_BITS - FACTOR_DROPPED;

    wire [CHANNELS*TILE*VALUE_BITS-1:0]  next_values;
    reg  [CHANNELS*TILE*VALUE_BITS-1:0]  values;
    wire [CHANNELS*TILE*FACTOR_BITS-1:0] next_factors;
    reg  [CHANNELS*TILE*FACTOR_BITS-1:0] factors;
    wire [TILE*RESULT_BITS-1:0]          transformed;
    wire [TILE*HELD_BITS-1:0]            next;
    reg  [TILE*HELD_BITS-1:0]            held;
    // Bit s: what is in stage s is valid, and the first or the last pass of a result.
    reg  [3:0] valid, first, last;

    genvar c, i;
    generate
        for (c = 0; c < CHANNELS; c = c + 1) begin : channel
            wino_input_transform #(
                .OMEGA(OMEGA), .INPUT_BITS(INPUT_BITS), .FULL_BITS(VALUE_FULL_BITS),
                .DROPPED(VALUE_DROPPED)
            ) input_transform (
                .bypass(bypass),
                .tile(tiles[c*TILE*INPUT_BITS +: TILE*INPUT_BITS]),
                .values(next_values[c*TILE*VALUE_BITS +: TILE*VALUE_BITS])
            );
            wino_kernel_transform #(
                .OMEGA(OMEGA), .KERNEL_BITS(KERNEL_BITS), .FULL_BITS(FACTOR_FULL_BITS),
                .DROPPED(FACTOR_DROPPED)
            ) kernel_transform (
                .bypass(bypass),
                .kernel(kernels[c*9*KERNEL_BITS +: 9*KERNEL_BITS]),
                .factors(next_factors[c*TILE*FACTOR_BITS +: TILE*FACTOR_BITS])
            );
        end
        for (i = 0; i < TILE; i = i + 1) begin : result
            wino_finish #(.HELD_BITS(HELD_BITS), .OUTPUT_BITS(OUTPUT_BITS)) finish (
                .bypass(bypass),
                .sum(held[i*HELD_BITS +: HELD_BITS]),
                .result(results[i*OUTPUT_BITS +: OUTPUT_BITS])
            );
        end
    endgenerate

    wino_core #(
        .OMEGA(OMEGA), .CHANNELS(CHANNELS), .VALUE_BITS(VALUE_BITS), .FACTOR_BITS(FACTOR_BITS),
        .SUM_BITS(SUM_BITS), .DROPPED(SUM_DROPPED), .RESULT_BITS(RESULT_BITS)
    ) core (
        .clock(clock), .bypass(bypass), .values(values), .factors(factors), .results(transformed)
    );

    wino_accumulate #(
        .OMEGA(OMEGA), .EXACT(EXACT), .RESULT_BITS(RESULT_BITS), .HELD_BITS(HELD_BITS),
        .DROPPED(RESULT_DROPPED), .BYPASS_DROPPED(BYPASS_RESULT_DROPPED),
        .BYPASS_RAISED(BYPASS_RESULT_RAISED)
    ) accumulate (
        .bypass(bypass), .first(first[3]), .held(held), .results(transformed), .next(next)
    );

    always @(posedge clock) begin
        values  <= next_values;
        factors <= next_factors;
        first   <= {first[2:0], in_first};
        last    <= {last[2:0], in_last};
        if (valid[3]) held <= next;
        valid     <= reset ? 4'b0 : {valid[2:0], in_valid};
        out_valid <= !reset && valid[3] && last[3];
    end
endmodule
